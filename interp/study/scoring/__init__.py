"""Scores of labels: does a feature fire where, and on the pictures that, its label says?"""
