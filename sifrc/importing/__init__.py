"""From torch modules to specs: tracing by ``torch.export``, and a layer for each operator."""
