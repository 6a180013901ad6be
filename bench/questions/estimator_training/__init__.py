"""Does the gradient's noise matter?"""
