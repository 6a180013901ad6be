"""Does noise raise the encoder's uncertainty?"""
