BACKEND=CudaBackend=None
