"""Flow matching with two clocks: one network for new crystals, for structure prediction and for decoration.

`state` is what flows, `paths` how training draws points of a path, `model` the network, `sample` the integration,
`projection` the flow inside the symmetry of a Wyckoff template, `trainee` what the training loop is handed, and
`generator` the `Flow` that a campaign names.
"""
