"""Run every benchmark and print each arm beside the first, as a ratio.

`python -m benchmarks NAME …` runs one, which may take arguments; see its --help.
"""

import importlib
import resource
import sys

import torch

from benchmarks import adapters, data, datasets, evaluation, gate, generation, importers, training, validation

BENCHMARKS = {
    "DPO, pairs/min (8 pairs of PandaLM, embedded model)": training.run,
    "votes to datasets, rows/s (120,000 events)": data.run,
    "generation, tokens/s (64 chats, embedded model)": generation.run,
    "mixed adapters, tokens/s (32 rows: base and two adapters of rank 8)": adapters.run,
    "importing JSON lines, peak MiB by size of file (flat is 1)": importers.run,
    "gate, answers/s (one caller, 20,000 votes weighed meanwhile)": gate.run,
    "triplets judged and scrubbed, rows/s (1M rows)": validation.run,
    "datasets, triplets/s (200 000 votes, nearly as many prompts)": datasets.run,
    "near duplicates, prompts/s": datasets.run_near_duplicates,
    "offline gate, intervals/s (2,000 draws of 2,000 votes; ours by conversation)": evaluation.run,
}


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for title, run in BENCHMARKS.items():
        arms = run()
        ours, first = next(iter(arms.items()))
        print(title)
        for name, rate in arms.items():
            print(f"  {name:<14} {rate:10.1f}   {ours} is {first / rate:.2f} times this")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    else:
        main()
