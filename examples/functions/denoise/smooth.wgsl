// Non-local means (Buades, Coll and Morel 2005): each pixel becomes the mean of those around it whose surroundings look
// like its own. Pixels across an edge look different, so they have no say.

struct Settings { width: u32, height: u32, strength: f32 }

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> photo: array<u32>;
@group(0) @binding(2) var<storage, read> calm: array<u32>;
@group(0) @binding(3) var<storage, read> noise: array<u32, 4>;
@group(0) @binding(4) var<storage, read_write> pixels: array<u32>;

/// How far to look, and how much of its surroundings a pixel is known by: 11 x 11 pixels of 3 x 3.
const SEARCH = 5;
const PATCH = 1;

fn at(x: i32, y: i32) -> u32 {
  let inside = clamp(vec2i(x, y), vec2i(0), vec2i(i32(settings.width) - 1, i32(settings.height) - 1));
  return u32(inside.y) * settings.width + u32(inside.x);
}

/// Standard deviation of the noise (Immerkaer 1996), of values from 0 to 1; never less than rounding to 8 bits leaves.
fn deviation() -> f32 {
  let sum = f32(noise[0]) / 64.0;
  return max(sqrt(0.5 * 3.14159265) / 6.0 * sum / (f32(settings.width) * f32(settings.height)), 0.002);
}

@compute @workgroup_size(8, 8)
fn smooth_out(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= settings.width || id.y >= settings.height) { return; }
  let own = id.y * settings.width + id.x;
  if (settings.strength <= 0.0) {
    pixels[own] = photo[own];
    return;
  }
  let x = i32(id.x);
  let y = i32(id.y);
  let sigma = deviation() * settings.strength;
  // Two noisy views of one surface differ by twice the variance; only what is beyond that tells them apart.
  let alike = 2.0 * sigma * sigma;
  let sharpness = 1.0 / (1.6 * sigma * sigma);

  var around: array<vec3f, 9>;
  for (var i = 0; i < 9; i += 1) {
    around[i] = unpack4x8unorm(calm[at(x + i % 3 - PATCH, y + i / 3 - PATCH)]).rgb;
  }
  var sum = vec3f(0.0);
  var weights = 0.0;
  for (var dy = -SEARCH; dy <= SEARCH; dy += 1) {
    for (var dx = -SEARCH; dx <= SEARCH; dx += 1) {
      var difference = 0.0;
      for (var i = 0; i < 9; i += 1) {
        let there = unpack4x8unorm(calm[at(x + dx + i % 3 - PATCH, y + dy + i / 3 - PATCH)]).rgb;
        let apart = there - around[i];
        difference += dot(apart, apart);
      }
      let weight = exp(-max(difference / 27.0 - alike, 0.0) * sharpness);
      sum += weight * unpack4x8unorm(calm[at(x + dx, y + dy)]).rgb;
      weights += weight;
    }
  }
  let alpha = unpack4x8unorm(photo[own]).a;
  pixels[own] = pack4x8unorm(vec4f(sum / weights, alpha));
}
