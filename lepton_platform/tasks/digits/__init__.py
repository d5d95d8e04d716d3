"""Which digit did a hand write?"""
