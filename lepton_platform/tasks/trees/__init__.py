"""Where are the trees in an aerial photo?"""
