"""Network blocks shared by the families; every `forward` here compiles to TorchScript."""
