"""From a plan file to outputs: sessions, contexts, memory, CUDA graphs."""
