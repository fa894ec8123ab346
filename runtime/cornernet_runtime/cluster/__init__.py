"""Detection in data sets and video archives, spread over workers by Ray Data; needs the extra ``cluster``."""
