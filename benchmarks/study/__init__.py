"""Does dynamic training help? Static and dynamic models at equal training compute, on the embedded data.

    arms.py     what is compared: overrides of the training, by name
    train.py    runs of `spktrain`: one to begin with for each seed, and branches from it
    measure.py  numbers of a trained model: beside unseen trajectories, and true errors in long simulations
    hydrogen.py what the H2 molecule does: phase of its vibration, and where it ends up
    fractions.py  simulations with a fraction of the error of a model
    displaced.py  control of on-policy labels: labels at displaced training frames
    commands.py the command line; rows.py what it appends to files
    write.py    RESULTS.md, with tables.py and figures.py
    *.jsonl, RESULTS.md, findings.md  what was found, and what is concluded from it
    models/     some of the models, with their certificates: `spkdt about FILE`

`python -m benchmarks.study run` makes the runs, `last` certificates, `ensembles` longer simulations of their models,
`fractions` simulations with a part of their error, `beside` simulations beside new reference trajectories, `write` the
report. To measure trained models anew, remove results.jsonl and run the same command: what is trained and simulated is not
made again.
"""
