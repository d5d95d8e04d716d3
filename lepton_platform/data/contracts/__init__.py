"""Stage ``contract``: what the data must be. The one door to Great Expectations; importing this opens it not."""

from lepton_platform.data.contracts.stage import AnyContractParams, Contract, ContractParams, contract

__all__ = ["AnyContractParams", "Contract", "ContractParams", "contract"]
