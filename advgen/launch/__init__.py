"""A recipe's stages as jobs of other machines: what runs after what, on which resources, and how it goes.

``plan`` says which stages a recipe has; ``cluster`` what a SLURM offers; ``sbatch`` and ``slurm`` hand jobs in;
``state`` remembers them in the run folder. Nothing here trains, and nothing imports torch.
"""
