"""What does a voice say in a recording?"""
