"""Does dynamic training help? Static and dynamic models at equal training compute, on the embedded data.

    arms.py     what is compared: overrides of the training, by name
    train.py    runs of `spktrain`: one to begin with for each seed, and branches from it
    measure.py  numbers of a trained model: along unseen trajectories, and true errors in long simulations
    displaced.py  control of visited states: labels at displaced training frames
    write.py    RESULTS.md and its figures
    results.jsonl, RESULTS.md, findings.md  what was found, and what is concluded from it

`python -m benchmarks.study run` makes the runs, `python -m benchmarks.study write` the report.
"""
