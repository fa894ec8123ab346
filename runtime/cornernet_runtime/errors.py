"""What goes wrong, as one small tree.

Each message says what was expected, what came, and what to do next. The command lines print it on one line without a
traceback and exit with status 1.
"""


class CornerNetError(Exception):
    """Base of every error that this project raises on purpose."""


class BundleError(CornerNetError):
    """A bundle folder or its ``bundle.json`` cannot be used."""


class ModelError(CornerNetError):
    """A model file (ONNX or checkpoint) is not a CornerNet of ours, or does not fit its metadata."""


class CheckpointError(ModelError):
    """A checkpoint is truncated, foreign, newer than this version, or disagrees with its header."""


class BackendError(CornerNetError):
    """No backend can run the model here, or the one asked for cannot."""


class PluginError(CornerNetError):
    """The library of TensorRT plugins is not where it should be, or is not ours."""


class KernelError(BackendError):
    """A CUDA kernel cannot be compiled or launched here."""


class EngineError(CornerNetError):
    """A TensorRT engine cannot be built here, or is not what was asked for."""


class SizeError(CornerNetError):
    """An input size that the network cannot take."""


class FrameError(CornerNetError):
    """A frame or picture that cannot be read or has the wrong shape or type."""


class VideoError(CornerNetError):
    """A video, camera or stream that cannot be opened or read, or whose processing failed."""


class ServeError(CornerNetError):
    """A service cannot be started, or its replicas cannot be reached."""


class ClusterError(CornerNetError):
    """Ray, or a machine that works for it, cannot do what was asked for."""


class OutputError(CornerNetError):
    """A file or folder that cannot be written, or that exists and was not to be replaced; a window without a screen."""


class VerificationError(CornerNetError):
    """A stage of the deployment differs from the one before by more than its tolerance."""


class CornerNetWarning(UserWarning):
    """Something was done in another way than the user may expect; the command lines print it on one line."""
