"""FSDP2: a process keeps a part of every weight, gradient and optimizer state, and the whole of the block at work.

    rank 0   ▓░░░ ─┐ all-gather              reduce-scatter ┌─ ▓░░░  mean of the ranks' gradients
    rank 1   ░▓░░ ─┤ before a block runs       after its    ├─ ░▓░░
    rank 2   ░░▓░ ─┤ ▓▓▓▓ → forward, backward → gradient    ├─ ░░▓░
    rank 3   ░░░▓ ─┘                                        └─ ░░░▓

The blocks of transformers are gathered one by one, all other weights together. A teacher is sharded as its student is:
its moving average is that of the parts. Parts that never change (`Method.frozen`) stay whole everywhere.

Checkpoints are those of one process, and are gone on with by any number of processes, sharded or not.
"""

from collections.abc import Collection, Mapping
from typing import Any

from lightning.pytorch.plugins.layer_sync import LayerSync
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from jepa.methods.base import Method
from jepa.transformer import AdaptiveBlock, Block


def shard(method: Method, mesh: DeviceMesh) -> None:
    """Keep only this process's part of the weights of a method, in place; its names stay as they are."""
    frozen = {p for part in method.frozen for p in method.get_submodule(part).parameters()}
    for p in method.parameters():
        p.data = p.data.contiguous()  # kernels of convolutions may lie otherwise, and cannot be cut then
    for module in method.modules():
        if isinstance(module, Block | AdaptiveBlock) and frozen.isdisjoint(module.parameters()):
            _shard(module, mesh, ("step",))
    _shard(method, mesh, ("loss", "encode"), frozen)


def _shard(module: nn.Module, mesh: DeviceMesh, methods: tuple[str, ...], whole: Collection[nn.Parameter] = ()) -> None:
    """Its weights are gathered while one of these methods, or its forward, runs; those of `whole` always are."""
    fully_shard(module, mesh=mesh, ignored_params=set(whole))
    for name in methods:
        register_fsdp_forward_method(module, name)  # without effect where there is none of this name


def whole(x: Tensor) -> Tensor:
    """All of a tensor of which each process has a part. All processes call it, in the same order."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def part_like(x: Tensor, like: Tensor) -> Tensor:
    """This process's part of `x`, which all processes have, if `like`, of the same shape, is sharded; else `x`."""
    if not isinstance(like, DTensor) or isinstance(x, DTensor) or x.shape != like.shape:
        return x
    return distribute_tensor(x.to(like.device).contiguous(), like.device_mesh, like.placements, src_data_rank=None)


def parts_of_state(state: Mapping[int, Mapping[str, Any]], optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """The state of an optimizer, by parameter number, with this process's part of each tensor."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        number: {name: part_like(x, parameters[number]) if isinstance(x, Tensor) else x for name, x in entries.items()}
        for number, entries in state.items()
    }


class FSDP2(ModelParallelStrategy):
    """Lightning's strategy for modules that shard themselves, with one checkpoint file as of one process.

    Args:
        processes: in all, on all machines.
    """

    _layer_sync: LayerSync | None = None  # the trainer's plugin for BatchNorm, set by Lightning

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup(self, trainer: Any) -> None:
        assert self.lightning_module is not None and self._layer_sync is not None
        self._layer_sync.apply(self.lightning_module)
        super().setup(trainer)

    def teardown(self) -> None:
        if self.lightning_module is not None and self._layer_sync is not None:
            self._layer_sync.revert(self.lightning_module)
        super().teardown()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights, for the process that writes; nothing for the others."""
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The same of an optimizer's state dict."""
        plain = getattr(optimizer, "optimizer", optimizer)  # of Lightning's wrapper
        described = plain.state_dict()
        state = {number: self._gathered(entries) for number, entries in described["state"].items()}
        return {"state": state if self.is_global_zero else {}, "param_groups": described["param_groups"]}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Each process reads the whole file."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        present = self.lightning_module.state_dict()
        weights = {name: part_like(x, present[name]) for name, x in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(weights, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, described in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(described | {"state": parts_of_state(described["state"], optimizer)})

    def _gathered(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """One after the other, so that only the process that writes ever has all of them."""
        found = {}
        for name, x in tensors.items():
            value = whole(x).detach().cpu() if isinstance(x, Tensor) else x
            if self.is_global_zero:
                found[name] = value
        return found


def whole_weights(method: Method) -> dict[str, Tensor]:
    """All weights of a sharded method, on every process."""
    return {name: whole(x).detach().cpu() for name, x in method.state_dict().items()}
