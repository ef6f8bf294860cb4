"""Texts themselves: real ones read, others drawn, filtered and compared word by word."""
