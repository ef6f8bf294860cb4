"""The parts of a pretrain-projector job: features of the tower, and the training of a projector.

`frozen` is the model that stays as it is, `captions` what it is trained on, `loss` the loss with
its penalty, `looking` what a trained projector is measured by.
"""
