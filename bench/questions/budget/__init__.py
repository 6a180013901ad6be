"""Does the ranking survive its budget and its learning rate?"""
