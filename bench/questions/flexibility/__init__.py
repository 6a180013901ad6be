"""What does flexibility cost, and what does it buy?"""
