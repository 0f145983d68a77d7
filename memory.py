"""Whether an error says that there is not enough memory; torch need not be there."""


def is_out_of_memory(error: BaseException) -> bool:
    """Of a processor or a GPU.

    torch's own class is of a GPU alone; on a CPU its allocator raises a plain RuntimeError.
    """
    said = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or said
