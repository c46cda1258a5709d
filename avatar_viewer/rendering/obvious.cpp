// The obvious loop of obvious.py once more, as one writes it in C++: -O2 and OpenMP. Built by obvious_cpp.py, for comparison only.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace {

constexpr float kNear = 0.01f, kBlur = 0.3f, kAlphaMin = 1.0f / 255, kAlphaMax = 0.999f, kRestMin = 1e-4f;

struct Flat {
    float x, y, a, b, c, radius, depth;  // centre, conic, radius in pixels (0: behind)
};

Flat project(const float* mean, const float* quat, const float* scale, const float* view, const float* intrinsics) {
    const float fx = intrinsics[0], fy = intrinsics[1], cx = intrinsics[2], cy = intrinsics[3];
    float p[3];
    for (int r = 0; r < 3; ++r) {
        const float* row = view + 4 * r;
        p[r] = row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2] + row[3];
    }
    Flat flat{0, 0, 0, 0, 0, 0, p[2]};
    if (p[2] < kNear) return flat;
    float w = quat[0], x = quat[1], y = quat[2], z = quat[3];
    const float n = 1 / std::sqrt(w * w + x * x + y * y + z * z);
    w *= n, x *= n, y *= n, z *= n;
    const float rotation[3][3] = {{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
                                  {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
                                  {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}};
    float a = kBlur, b = 0, c = kBlur;
    for (int axis = 0; axis < 3; ++axis) {
        float turned[3] = {0, 0, 0};
        for (int r = 0; r < 3; ++r)
            for (int k = 0; k < 3; ++k) turned[r] += view[4 * r + k] * rotation[k][axis];
        const float along_x = fx / p[2] * (turned[0] - p[0] / p[2] * turned[2]) * scale[axis];
        const float along_y = fy / p[2] * (turned[1] - p[1] / p[2] * turned[2]) * scale[axis];
        a += along_x * along_x, b += along_x * along_y, c += along_y * along_y;
    }
    const float det = a * c - b * b, middle = 0.5f * (a + c);
    flat.x = fx * p[0] / p[2] + cx, flat.y = fy * p[1] / p[2] + cy;
    flat.a = c / det, flat.b = -b / det, flat.c = a / det;
    flat.radius = std::ceil(3 * std::sqrt(middle + std::sqrt(std::max(middle * middle - det, 0.0f))));
    return flat;
}

}  // namespace

extern "C" void draw_obviously(int32_t count, const float* means, const float* quats, const float* scales, const float* opacities,
                               const float* colors, const float* view, const float* intrinsics, const float* background,
                               int32_t threads, int32_t width, int32_t height, float* color, float* alpha) {
    std::vector<Flat> flats(count);
    std::vector<int32_t> order(count);
    for (int32_t i = 0; i < count; ++i) flats[i] = project(means + 3 * i, quats + 4 * i, scales + 3 * i, view, intrinsics);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t l, int32_t r) { return flats[l].depth < flats[r].depth; });
    std::vector<float> left(static_cast<size_t>(width) * height, 1.0f);
    std::fill(color, color + static_cast<size_t>(3) * width * height, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int32_t thread = 0; thread < threads; ++thread) {
        const int top = height * thread / threads, bottom = height * (thread + 1) / threads;
        for (const int32_t i : order) {
            const Flat& flat = flats[i];
            if (flat.radius == 0) continue;
            // Clamped as floats: a wide Gaussian beside a narrow camera is further out than an int reaches.
            const int y0 = static_cast<int>(std::clamp(flat.y - flat.radius, float(top), float(bottom)));
            const int y1 = static_cast<int>(std::clamp(flat.y + flat.radius + 1, float(top), float(bottom)));
            const int x0 = static_cast<int>(std::clamp(flat.x - flat.radius, 0.0f, float(width)));
            const int x1 = static_cast<int>(std::clamp(flat.x + flat.radius + 1, 0.0f, float(width)));
            for (int py = y0; py < y1; ++py) {
                for (int px = x0; px < x1; ++px) {
                    const size_t pixel = static_cast<size_t>(py) * width + px;
                    if (left[pixel] <= kRestMin) continue;
                    const float dx = px + 0.5f - flat.x, dy = py + 0.5f - flat.y;
                    const float sigma = 0.5f * (flat.a * dx * dx + flat.c * dy * dy) + flat.b * dx * dy;
                    const float opacity = std::min(kAlphaMax, opacities[i] * std::exp(-sigma));
                    if (opacity < kAlphaMin) continue;
                    const float weight = opacity * left[pixel];
                    for (int k = 0; k < 3; ++k) color[3 * pixel + k] += weight * colors[3 * i + k];
                    left[pixel] -= weight;
                }
            }
        }
        for (size_t pixel = static_cast<size_t>(top) * width; pixel < static_cast<size_t>(bottom) * width; ++pixel) {
            alpha[pixel] = 1 - left[pixel];
            for (int k = 0; k < 3; ++k) color[3 * pixel + k] += left[pixel] * background[k];
        }
    }
}
