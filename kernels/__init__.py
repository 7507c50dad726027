"""The op family on the GPU, in Triton."""
