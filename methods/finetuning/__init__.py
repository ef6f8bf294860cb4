"""One loop that trains weights, keeps them at evenly spaced steps, and goes on after a kill.

`schedule` says which rows and which learning rate a step has, `loop` trains. Methods bring the
model and the backward pass.
"""
