// Sixteen bytes of a map in registers, for corner_pool.cu: four words of one float or two halves.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

namespace cornernet {

inline __device__ float maximum(float a, float b) {
  return fmaxf(a, b);
}
#if defined(__CUDA_ARCH__) && \
    __CUDA_ARCH__ < 800  // has no such instruction; the library's replacement uses a stack
inline __device__ __half2 maximum(__half2 a, __half2 b) {
  const unsigned chosen = __hgt2_mask(a, b);
  const unsigned bits = (reinterpret_cast<const unsigned&>(a) & chosen) |
                        (reinterpret_cast<const unsigned&>(b) & ~chosen);
  return reinterpret_cast<const __half2&>(bits);
}
#else
inline __device__ __half2 maximum(__half2 a, __half2 b) {
  return __hmax2(a, b);
}
#endif
inline __device__ float sum(float a, float b) {
  return a + b;
}
inline __device__ __half2 sum(__half2 a, __half2 b) {
  return __hadd2(a, b);
}

template <typename Element>
struct Words;

template <>
struct Words<float> {
  using Word = float;
  static __device__ float lowest() { return -INFINITY; }
  static __device__ float broadcast(float value) { return value; }
  static __device__ float load(const float* from, int count) {
    return count > 0 ? __ldg(from) : lowest();
  }
  static __device__ void store(float* to, int count, float word) {
    if (count > 0) *to = word;
  }
  template <bool kReversed>
  static __device__ float scan(float& word, float running) {
    return word = maximum(running, word);
  }
};

template <>
struct Words<__half> {
  using Word = __half2;
  static __device__ __half lowest() { return __ushort_as_half(0xFC00); }
  static __device__ __half2 broadcast(__half value) { return __half2half2(value); }
  static __device__ __half2 load(const __half* from, int count) {
    return __halves2half2(count > 0 ? __ldg(from) : lowest(),
                          count > 1 ? __ldg(from + 1) : lowest());
  }
  static __device__ void store(__half* to, int count, __half2 word) {
    if (count > 0) to[0] = __low2half(word);
    if (count > 1) to[1] = __high2half(word);
  }
  template <bool kReversed>
  static __device__ __half2 scan(__half2& word, __half2 running) {
    word = maximum(word, running);
    word = maximum(word, kReversed ? __high2half2(word) : __low2half2(word));
    return kReversed ? __low2half2(word) : __high2half2(word);
  }
};

template <typename Element>
struct alignas(16) Vector {
  using Word = typename Words<Element>::Word;
  static constexpr int kSize = 16 / sizeof(Element);
  static constexpr int kWords = 4;
  static constexpr int kPerWord = kSize / kWords;

  Word word[kWords];

  static __device__ Vector filled(Word word) { return {{word, word, word, word}}; }
  static __device__ Word lowestWord() {
    return Words<Element>::broadcast(Words<Element>::lowest());
  }
  static __device__ Vector lowest() { return filled(lowestWord()); }

  // The first `count` elements at `from`, the lowest value after them. Whole: count is 0 or kSize,
  // and `from` is aligned.
  template <bool kWhole>
  static __device__ Vector load(const Element* from, int count) {
    Vector vector = lowest();
    if constexpr (kWhole) {
      if (count > 0) {
        const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
        vector = reinterpret_cast<const Vector&>(raw);
      }
    } else {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        vector.word[w] = Words<Element>::load(from + w * kPerWord, count - w * kPerWord);
      }
    }
    return vector;
  }

  template <bool kWhole>
  __device__ void store(Element* to, int count) const {
    if constexpr (kWhole) {
      // The intrinsic, for nvcc 13.0 makes four stores of a plain assignment.
      if (count > 0) __stcg(reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4&>(word));
    } else {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        Words<Element>::store(to + w * kPerWord, count - w * kPerWord, word[w]);
      }
    }
  }

  // Replace each element by the maximum of those before it and itself; return that of all, in each
  // element of a word.
  template <bool kReversed>
  __device__ Word scan() {
    Word running = lowestWord();
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const int i = kReversed ? kWords - 1 - w : w;
      running = Words<Element>::template scan<kReversed>(word[i], running);
    }
    return running;
  }
};

template <typename Element>
__device__ Vector<Element> maximum(const Vector<Element>& a, const Vector<Element>& b) {
  Vector<Element> result;
#pragma unroll
  for (int w = 0; w < Vector<Element>::kWords; ++w) {
    result.word[w] = maximum(a.word[w], b.word[w]);
  }
  return result;
}

template <typename Element>
__device__ Vector<Element> maximum(const Vector<Element>& a, typename Vector<Element>::Word b) {
  return maximum(a, Vector<Element>::filled(b));
}

template <typename Element>
__device__ Vector<Element> sum(const Vector<Element>& a, const Vector<Element>& b) {
  Vector<Element> result;
#pragma unroll
  for (int w = 0; w < Vector<Element>::kWords; ++w) {
    result.word[w] = sum(a.word[w], b.word[w]);
  }
  return result;
}

// The value `distance` lanes before this one, among `lanes` that share a row. Every lane of the
// warp takes part.
template <typename T>
__device__ T fromLaneBefore(T value, int distance, int lanes) {
  return __shfl_up_sync(0xFFFFFFFFU, value, distance, lanes);
}

template <typename Element>
__device__ Vector<Element> fromLaneBefore(const Vector<Element>& value, int distance, int lanes) {
  Vector<Element> result;
#pragma unroll
  for (int w = 0; w < Vector<Element>::kWords; ++w) {
    result.word[w] = fromLaneBefore(value.word[w], distance, lanes);
  }
  return result;
}

}  // namespace cornernet
