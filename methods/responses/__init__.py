"""Responses of models to prompts, judged and counted: refusals, right answers, paired tests.

`schema` has what requests and results say of them and imports no numerics; `rules`, `extractors`
and `judging` turn texts into outcomes; `rates` counts them; `gates` draws the verdict.
"""
