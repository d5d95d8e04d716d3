"""torchrun, except that it does not outlive the process that started it."""

from lepton_platform.training.distributed import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    from torch.distributed.run import main

    main()
