// What the plugins have to say, through TensorRT's logger.
#pragma once

#include <NvInferRuntime.h>

namespace cornernet {

// Take the finder that TensorRT hands to a library of plugins; null takes it back.
void useLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

// Log an error, to standard error where TensorRT has given no logger. `format` is that of printf.
[[gnu::format(printf, 1, 2)]] void reportError(const char* format, ...) noexcept;

}  // namespace cornernet
