"""The data model that gateway and worker share: tables, states, `transitions`, `queries`.

No machine-learning models live here. `transitions` changes jobs, `queries` reads everything;
`database` makes engines and sessions, `schema` runs the migrations.
"""
