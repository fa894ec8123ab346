#include "plugin_log.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>

namespace cornernet {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> loggerFinder{nullptr};

nvinfer1::ILogger* findLogger() noexcept {
  nvinfer1::ILoggerFinder* finder = loggerFinder.load();
  if (!finder) return nullptr;
  try {
    return finder->findLogger();
  } catch (...) {  // it is not declared noexcept, and the callers are
    return nullptr;
  }
}

}  // namespace

void useLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept {
  loggerFinder.store(finder);
}

void reportError(const char* format, ...) noexcept {
  char message[1024];  // on the stack: nothing here may throw
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  if (nvinfer1::ILogger* logger = findLogger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
}

}  // namespace cornernet
