"""Responses of models to prompts, judged and counted: refusals, right answers, paired tests.

`schema` has what requests and results say of them and imports no numerics. `reading` reads prompts
and responses, `judging` has models judge them, `counting` draws shares and the verdict, `showing`
shows them; `scoring` leads from one to the next.
"""
