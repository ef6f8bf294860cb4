"""Hallucination scores from sampled answers: SNNE, WSNNE and their peers.

`answers` reads and draws, `similarity` compares answers, `scoring` runs `scorers` over batches,
`calibration` and `evaluation` judge scores by labels, `schema` is the request. `evaluate_scorers`
and `calibrate_scorer` import from here.
"""
