"""Does theory hold where log p(x) is known?"""
