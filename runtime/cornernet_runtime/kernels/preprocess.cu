// Frames on the device to network input, for all views of a batch in one launch: resized, padded,
// normalised, mirrored and turned to channels first. preprocess.py says how to launch it.
//
// A thread makes one pixel of the input, all three channels of it. The threads of a warp make
// neighbours in a row, so each of their three stores fills 64 (half) or 128 (float) bytes without a
// gap, and their loads, a few pixels apart, share cache lines. Wider stores are not to be had: a
// side of the input is odd, and so hardly a row is aligned.
//
// The arithmetic is that of OpenCV's cv2.resize with INTER_LINEAR on bytes: weights of 11 bits,
// products cut to the bits that its vector code keeps. So the levels are those of the CPU, exactly.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace cornernet {

constexpr int kLevels = 257;  // 0 to 255, and the border
constexpr int kWeightOne = 2048;

// Where a view's frame lies and where it goes. It is read from the device's memory because a
// captured graph freezes the parameters of its kernels, and frames come and go.
struct View {
  const unsigned char* frame;  // 3 bytes a pixel
  long long pitch;             // bytes from one row of the frame to the next; may be negative
  int frameHeight, frameWidth;
  int height, width;  // that the frame is resized to
  int visibleHeight, visibleWidth;
  int top, left;  // of what is visible, in the input before it is mirrored
  int mirrored;
  int reversed;  // the frame's channels come in the other order than the input's
};

struct Preprocessing {
  const View* views;   // [grid.z]
  const float* table;  // [3, kLevels]: what a level becomes in each channel of the input
  void* input;         // [grid.z, 3, height, width], float or half
  int height, width;
};

// Two neighbours along one axis of the frame, and their weights.
struct Taps {
  int first, second;
  int firstWeight, secondWeight;
};

// The neighbours of sample `at` where `count` pixels become `wanted`. Its centre lies at
// (at + 1/2) * count / wanted - 1/2: one division of whole numbers, which float holds exactly up to
// 2^24, rounded once.
__device__ Taps tapsOf(int at, int count, int wanted) {
  const long long numerator = (2LL * at + 1) * count - wanted;
  const float position = static_cast<float>(numerator) / static_cast<float>(2LL * wanted);
  const float below = floorf(position);
  const float fraction = position - below;
  const int first = static_cast<int>(below);
  Taps taps;
  taps.first = max(0, min(first, count - 1));
  taps.second = max(0, min(first + 1, count - 1));
  taps.firstWeight = static_cast<int>(rintf((1.0F - fraction) * kWeightOne));
  taps.secondWeight = static_cast<int>(rintf(fraction * kWeightOne));
  return taps;
}

// Make of both neighbours the one that counts where the frame ends, as OpenCV does across (not
// down, where it weighs the same row twice; the cut bits show the difference).
__device__ void stopAtEdges(Taps& taps) {
  if (taps.first != taps.second) return;
  taps.firstWeight = kWeightOne;
  taps.secondWeight = 0;
}

inline __device__ void put(float* to, float value) {
  *to = value;
}
inline __device__ void put(__half* to, float value) {
  *reinterpret_cast<unsigned short*>(to) = __half_as_ushort(__float2half_rn(value));
}

template <typename Element>
__device__ void preprocess(const Preprocessing& p) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  if (column >= p.width) return;
  const View view = p.views[blockIdx.z];
  const long long plane = static_cast<long long>(p.height) * p.width;
  Element* output = static_cast<Element*>(p.input) + 3 * plane * blockIdx.z +
                    static_cast<long long>(row) * p.width + column;
  const int y = row - view.top;
  const int x = (view.mirrored ? p.width - 1 - column : column) - view.left;

  int level[3] = {kLevels - 1, kLevels - 1, kLevels - 1};
  if (y >= 0 && y < view.visibleHeight && x >= 0 && x < view.visibleWidth) {
    const Taps down = tapsOf(y, view.frameHeight, view.height);
    Taps across = tapsOf(x, view.frameWidth, view.width);
    stopAtEdges(across);
    const unsigned char* upper = view.frame + down.first * view.pitch;
    const unsigned char* lower = view.frame + down.second * view.pitch;
    const long long left = 3LL * across.first;
    const long long right = 3LL * across.second;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const int above = __ldg(upper + left + c) * across.firstWeight +
                        __ldg(upper + right + c) * across.secondWeight;
      const int below = __ldg(lower + left + c) * across.firstWeight +
                        __ldg(lower + right + c) * across.secondWeight;
      level[c] = ((down.firstWeight * (above >> 4) >> 16) +
                  (down.secondWeight * (below >> 4) >> 16) + 2) >>
                 2;
    }
  }
  const int first = view.reversed ? level[2] : level[0];
  const int third = view.reversed ? level[0] : level[2];
  put(output, __ldg(p.table + first));
  put(output + plane, __ldg(p.table + kLevels + level[1]));
  put(output + 2 * plane, __ldg(p.table + 2 * kLevels + third));
}

extern "C" __global__ void __launch_bounds__(128) preprocessFloat(const Preprocessing p) {
  preprocess<float>(p);
}

extern "C" __global__ void __launch_bounds__(128) preprocessHalf(const Preprocessing p) {
  preprocess<__half>(p);
}

}  // namespace cornernet
