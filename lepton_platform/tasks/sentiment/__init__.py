"""Is a film review fresh or rotten?"""
