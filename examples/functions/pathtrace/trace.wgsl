// One sample of every pixel per dispatch, added to `light`. Unidirectional path tracing with next-event estimation
// on spheres and boxes that shine; the sky and shining planes are found by chance only.

struct View {
  position: vec3f, fov: f32,
  look_at: vec3f, aperture: f32,
  horizon: vec3f, focus: f32,
  zenith: vec3f, exposure: f32,
  width: u32, height: u32, bounces: u32, seed: u32,
  sample: u32, spheres: u32, planes: u32, boxes: u32,
}

struct Box { centre: vec3f, cosine: f32, half: vec3f, sine: f32 }
struct Surface {
  colour: vec3f, material: u32,
  colour2: vec3f, checker: f32,
  roughness: f32, index: f32, power: f32,
}

// Slots 0 to 15 are spheres, 16 to 23 planes, 24 to 31 boxes.
struct Room {
  spheres: array<vec4f, 16>,
  planes: array<vec4f, 8>,
  boxes: array<Box, 8>,
  surfaces: array<Surface, 32>,
  lamps: array<u32, 32>,
  lamp_count: u32,
}

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(1) var<storage, read> room: Room;
@group(0) @binding(2) var<storage, read_write> light: array<vec4f>;

const DIFFUSE = 0u;
const METAL = 1u;
const GLASS = 2u;
const LIGHT = 3u;

const PI = 3.14159265;
const FAR = 1e20;
const NEAR = 1e-3;
const NOTHING = 0xffffffffu;
// Light that the eye sees directly, and light that comes by way of something else, brings at most this much per path:
// what brings more is a firefly, which hundreds of samples would not even out. Costs the brightest caustics.
const BRIGHTEST_SEEN = 12.0;
const BRIGHTEST_PASSED_ON = 2.5;

// PCG-RXS-M-XS (O'Neill 2014; Jarzynski and Olano 2020 recommend it for GPUs).
var<private> random_state: u32;

fn pcg(value: u32) -> u32 {
  let state = value * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

fn random() -> f32 {
  random_state = pcg(random_state);
  return f32(random_state >> 8u) / 16777216.0;
}


fn turned(v: vec3f, cosine: f32, sine: f32) -> vec3f {
  return vec3f(cosine * v.x + sine * v.z, v.y, cosine * v.z - sine * v.x);
}

/// Distance beyond NEAR to a sphere, else FAR. From the point of the ray nearest to the centre, which keeps precision
/// for far, small spheres.
fn to_sphere(sphere: vec4f, origin: vec3f, direction: vec3f) -> f32 {
  let to = origin - sphere.xyz;
  let b = dot(to, direction);
  let offset = to - b * direction;
  let inside = sphere.w * sphere.w - dot(offset, offset);
  let half = sqrt(max(inside, 0.0));
  let t = select(-b + half, -b - half, -b - half > NEAR);
  return select(FAR, t, inside > 0.0 && t > NEAR);
}

fn to_plane(plane: vec4f, origin: vec3f, direction: vec3f) -> f32 {
  let t = (plane.w - dot(plane.xyz, origin)) / dot(plane.xyz, direction);
  return select(FAR, t, t > NEAR);
}

fn to_box(box: Box, origin: vec3f, direction: vec3f) -> f32 {
  let o = turned(origin - box.centre, box.cosine, -box.sine);
  let d = turned(direction, box.cosine, -box.sine);
  let inverse = 1.0 / select(d, vec3f(1e-9), abs(d) < vec3f(1e-9));
  let middle = -o * inverse;
  let reach = abs(inverse) * box.half;
  let low = middle - reach;
  let high = middle + reach;
  let enter = max(low.x, max(low.y, low.z));
  let leave = min(high.x, min(high.y, high.z));
  let t = select(leave, enter, enter > NEAR);
  return select(FAR, t, enter <= leave && t > NEAR);
}

struct Hit { distance: f32, slot: u32 }

// select() keeps SIMD lanes together: on a software adapter this search is where the time goes.
fn nearest(origin: vec3f, direction: vec3f) -> Hit {
  let planes = view.planes;
  let spheres = view.spheres;
  let boxes = view.boxes;
  var near = FAR;
  var slot = NOTHING;
  for (var i = 0u; i < planes; i += 1u) {
    let t = to_plane(room.planes[i], origin, direction);
    slot = select(slot, 16u + i, t < near);
    near = min(near, t);
  }
  for (var i = 0u; i < spheres; i += 1u) {
    let t = to_sphere(room.spheres[i], origin, direction);
    slot = select(slot, i, t < near);
    near = min(near, t);
  }
  for (var i = 0u; i < boxes; i += 1u) {
    let t = to_box(room.boxes[i], origin, direction);
    slot = select(slot, 24u + i, t < near);
    near = min(near, t);
  }
  return Hit(near, slot);
}

fn outward(slot: u32, at: vec3f) -> vec3f {
  if (slot < 16u) { return (at - room.spheres[slot].xyz) / room.spheres[slot].w; }
  if (slot < 24u) { return room.planes[slot - 16u].xyz; }
  let box = room.boxes[slot - 24u];
  // The face: the axis along which the point lies farthest out, as a share of the half size.
  let p = turned(at - box.centre, box.cosine, -box.sine) / box.half;
  let q = abs(p);
  var n = vec3f(0.0, 0.0, sign(p.z));
  if (q.x >= q.y && q.x >= q.z) { n = vec3f(sign(p.x), 0.0, 0.0); }
  else if (q.y >= q.z) { n = vec3f(0.0, sign(p.y), 0.0); }
  return turned(n, box.cosine, box.sine);
}

fn sky(direction: vec3f) -> vec3f {
  return mix(view.horizon, view.zenith, sqrt(clamp(direction.y, 0.0, 1.0)));
}

fn colour_at(surface: Surface, at: vec3f) -> vec3f {
  if (surface.checker <= 0.0) { return surface.colour; }
  // The nudge keeps points that lie exactly on a boundary from flickering between both.
  let cell = vec3i(floor(at / surface.checker + 1e-3));
  return select(surface.colour, surface.colour2, ((cell.x + cell.y + cell.z) & 1) == 1);
}

/// An orthonormal basis around n (Duff et al. 2017).
fn basis(n: vec3f) -> mat3x3f {
  let s = select(-1.0, 1.0, n.z >= 0.0);
  let a = -1.0 / (s + n.z);
  let b = n.x * n.y * a;
  return mat3x3f(vec3f(1.0 + s * n.x * n.x * a, s * b, -s * n.x), vec3f(b, s + n.y * n.y * a, -n.y), n);
}

fn around_cosine(n: vec3f) -> vec3f {
  let r = random();
  let angle = 2.0 * PI * random();
  return basis(n) * vec3f(sqrt(r) * cos(angle), sqrt(r) * sin(angle), sqrt(1.0 - r));
}

/// GGX half vector around n.
fn around_rough(n: vec3f, roughness: f32) -> vec3f {
  let alpha = roughness * roughness;
  let r = random();
  let cosine = sqrt((1.0 - r) / (1.0 + (alpha * alpha - 1.0) * r));
  let sine = sqrt(max(0.0, 1.0 - cosine * cosine));
  let angle = 2.0 * PI * random();
  return basis(n) * vec3f(sine * cos(angle), sine * sin(angle), cosine);
}

/// A direction to a lamp and what arrives along it over the diffuse lobe if nothing but that lamp is met.
struct Chance { direction: vec3f, slot: u32, light: vec3f }

fn towards_lamp(at: vec3f, n: vec3f, spot: vec2f) -> Chance {
  var chance = Chance(n, NOTHING, vec3f(0.0));
  let lamps = room.lamp_count;
  let slot = room.lamps[min(u32(random() * f32(lamps)), lamps - 1u)];
  let u = spot.x;
  let v = spot.y;
  let choice = random();
  let light = room.surfaces[slot].colour * room.surfaces[slot].power * f32(lamps);
  if (slot < 16u) {
    // Uniform over the cone that the sphere fills.
    let to = room.spheres[slot].xyz - at;
    let square = dot(to, to);
    let share = room.spheres[slot].w * room.spheres[slot].w / square;
    if (share >= 0.9999) { return chance; }
    let least = sqrt(1.0 - share);
    let cosine = 1.0 - u * (1.0 - least);
    let sine = sqrt(max(0.0, 1.0 - cosine * cosine));
    chance.direction = basis(to / sqrt(square)) * vec3f(sine * cos(2.0 * PI * v), sine * sin(2.0 * PI * v), cosine);
    let slope = dot(chance.direction, n);
    if (slope <= 0.0) { return chance; }
    chance.slot = slot;
    chance.light = light * slope * 2.0 * (1.0 - least);
    return chance;
  }
  // A point on one of the three faces that the box can show to `at`, chosen by area.
  let box = room.boxes[slot - 24u];
  let size = 2.0 * box.half;
  let local = turned(at - box.centre, box.cosine, -box.sine);
  let areas = vec3f(size.y * size.z, size.x * size.z, size.x * size.y)
    * select(vec3f(0.0), vec3f(1.0), abs(local) > box.half);
  let total = areas.x + areas.y + areas.z;
  let side = select(vec3f(-1.0), vec3f(1.0), local > vec3f(0.0));
  var point = vec3f(2.0 * u - 1.0, 2.0 * v - 1.0, side.z);
  var face = vec3f(0.0, 0.0, side.z);
  if (choice * total < areas.x) {
    point = vec3f(side.x, 2.0 * u - 1.0, 2.0 * v - 1.0);
    face = vec3f(side.x, 0.0, 0.0);
  } else if (choice * total < areas.x + areas.y) {
    point = vec3f(2.0 * u - 1.0, side.y, 2.0 * v - 1.0);
    face = vec3f(0.0, side.y, 0.0);
  }
  let to = turned(point * box.half, box.cosine, box.sine) + box.centre - at;
  let square = dot(to, to);
  chance.direction = to / sqrt(square);
  let slope = dot(chance.direction, n);
  let facing = -dot(chance.direction, turned(face, box.cosine, box.sine));
  if (total <= 0.0 || slope <= 0.0 || facing <= 0.0) { return chance; }
  chance.slot = slot;
  chance.light = light * (slope * facing * total / (PI * square));
  return chance;
}

fn limited(light: vec3f, bounce: u32) -> vec3f {
  let most = select(BRIGHTEST_PASSED_ON, BRIGHTEST_SEEN, bounce == 0u);
  let brightest = max(light.x, max(light.y, light.z));
  // A comparison with NaN is false, so this also drops the odd path that divided by nothing.
  if (!(brightest < 1e6)) { return vec3f(0.0); }
  return light * min(1.0, most / max(brightest, 1e-6));
}

fn path(start: vec3f, towards: vec3f, start_spot: vec2f) -> vec3f {
  var origin = start;
  var direction = towards;
  var sum = vec3f(0.0);
  var throughput = vec3f(1.0);
  // Lamps that were sampled count on a hit only where they could not be: from the eye and after mirrors and glass.
  var sees_lamps = true;
  // A ray to a lamp goes through the same search as a ray of the path, in turns with them: one search in the program.
  var asked = Chance(vec3f(0.0), NOTHING, vec3f(0.0));
  var bounce = 0u;
  loop {
    let asking = asked.slot != NOTHING;
    let ray = select(direction, asked.direction, asking);
    let hit = nearest(origin, ray);
    if (asking) {
      if (hit.slot == asked.slot) { sum += limited(asked.light, bounce - 1u); }
      asked.slot = NOTHING;
      continue;
    }
    if (hit.slot == NOTHING) {
      sum += limited(throughput * sky(direction), bounce);
      break;
    }
    let surface = room.surfaces[hit.slot];
    if (surface.material == LIGHT) {
      let plane = hit.slot >= 16u && hit.slot < 24u;
      if (sees_lamps || plane) { sum += limited(throughput * surface.colour * surface.power, bounce); }
      break;
    }
    if (bounce == view.bounces) { break; }
    let at = origin + hit.distance * direction;
    let out = outward(hit.slot, at);
    let inside = dot(direction, out) > 0.0;
    let n = select(out, -out, inside);
    let colour = colour_at(surface, at);
    origin = at + n * NEAR;
    sees_lamps = true;
    if (surface.material == DIFFUSE) {
      throughput *= colour;
      if (room.lamp_count > 0u) {
        // The first spots of a pixel's samples are spread evenly over the lamp (R2 sequence, Roberts 2018), each pixel
        // from a start of its own: soft shadows settle with far fewer samples.
        let even = fract(start_spot + f32(view.sample) * vec2f(0.7548777, 0.5698403));
        let spot = select(vec2f(random(), random()), even, bounce == 0u);
        asked = towards_lamp(origin, n, spot);
        asked.light *= throughput;
        sees_lamps = false;
      }
      direction = around_cosine(n);
    } else if (surface.material == METAL) {
      let half = around_rough(n, surface.roughness);
      let mirrored = reflect(direction, half);
      if (dot(mirrored, n) <= 0.0) { break; }
      // Schlick's Fresnel term: metals whiten at grazing angles.
      throughput *= colour + (1.0 - colour) * pow(1.0 - saturate(dot(mirrored, half)), 5.0);
      direction = mirrored;
    } else {
      let ratio = select(1.0 / surface.index, surface.index, inside);
      let r0 = pow((1.0 - surface.index) / (1.0 + surface.index), 2.0);
      let beyond = refract(direction, n, ratio);
    let total = dot(beyond, beyond) < 0.5;
      // On the way out Schlick's term takes the angle outside the glass.
      let cosine = select(-dot(direction, n), -dot(beyond, n), inside);
      let reflected = r0 + (1.0 - r0) * pow(1.0 - saturate(cosine), 5.0);
      if (total || random() < reflected) {
        direction = reflect(direction, n);
      } else {
        direction = normalize(beyond);
        origin = at - n * NEAR;
        throughput *= colour;
      }
    }
    bounce += 1u;
    // Russian roulette: dim paths end early, the survivors carry their share.
    if (bounce > 1u) {
      let survival = clamp(max(throughput.x, max(throughput.y, throughput.z)), 0.05, 1.0);
      if (random() >= survival) { throughput = vec3f(0.0); bounce = view.bounces; }
      throughput /= survival;
    }
  }
  return sum;
}

@compute @workgroup_size(8, 8)
fn trace(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= view.width || at.y >= view.height) { return; }
  let pixel = at.y * view.width + at.x;
  random_state = pcg(pixel + pcg(view.seed));
  let start_spot = vec2f(random(), random());
  random_state = pcg(random_state + pcg(view.sample));

  let forward = normalize(view.look_at - view.position);
  let up = select(vec3f(0.0, 1.0, 0.0), vec3f(0.0, 0.0, 1.0), abs(forward.y) > 0.999);
  let right = normalize(cross(forward, up));
  let above = cross(right, forward);
  // A tent filter two pixels wide over the pixel: the smoothest of the cheap ones.
  let jitter = vec2f(random() + random(), random() + random()) - 1.0;
  let screen = (vec2f(at.xy) + 0.5 + jitter - 0.5 * vec2f(f32(view.width), f32(view.height))) / (0.5 * f32(view.height));
  let scale = tan(0.5 * radians(view.fov));
  var direction = forward + scale * (screen.x * right - screen.y * above);

  // A thin lens: rays through all of it meet in the plane of focus. Without an aperture it is a pinhole.
  let focus = select(distance(view.look_at, view.position), view.focus, view.focus > 0.0);
  let spread = view.aperture * sqrt(random());
  let angle = 2.0 * PI * random();
  let lens = spread * (cos(angle) * right + sin(angle) * above);
  direction = normalize(direction * focus - lens);

  let colour = path(view.position + lens, direction, start_spot);
  light[pixel] += vec4f(colour, 1.0);
}
