"""Which hyperparameters were chosen?"""
