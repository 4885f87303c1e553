"""Faults planted in pairs of small PyTorch models: are they caught, placed and named?"""
