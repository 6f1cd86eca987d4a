// Once per picture: the scene's lists as the tracer reads them, at fixed places, with only what a ray test needs in the
// way of a ray, and the lamps listed.

struct View {
  position: vec3f, fov: f32,
  look_at: vec3f, aperture: f32,
  horizon: vec3f, focus: f32,
  zenith: vec3f, exposure: f32,
  width: u32, height: u32, bounces: u32, seed: u32,
  sample: u32, spheres: u32, planes: u32, boxes: u32,
}


struct Sphere {
  centre: vec3f, radius: f32,
  colour: vec3f, material: u32, colour2: vec3f, checker: f32, roughness: f32, index: f32, power: f32,
}
struct Plane {
  point: vec3f, normal: vec3f,
  colour: vec3f, material: u32, colour2: vec3f, checker: f32, roughness: f32, index: f32, power: f32,
}
struct GivenBox {
  centre: vec3f, turn: f32, size: vec3f,
  colour: vec3f, material: u32, colour2: vec3f, checker: f32, roughness: f32, index: f32, power: f32,
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
@group(0) @binding(1) var<storage, read> spheres: array<Sphere>;
@group(0) @binding(2) var<storage, read> planes: array<Plane>;
@group(0) @binding(3) var<storage, read> boxes: array<GivenBox>;
@group(0) @binding(4) var<storage, read_write> room: Room;

const LIGHT = 3u;

fn add_lamp(slot: u32) {
  room.lamps[room.lamp_count] = slot;
  room.lamp_count += 1u;
}

@compute @workgroup_size(1)
fn arrange() {
  for (var i = 0u; i < view.spheres; i += 1u) {
    let s = spheres[i];
    room.spheres[i] = vec4f(s.centre, s.radius);
    room.surfaces[i] = Surface(s.colour, s.material, s.colour2, s.checker, s.roughness, s.index, s.power);
    if (s.material == LIGHT) { add_lamp(i); }
  }
  for (var i = 0u; i < view.planes; i += 1u) {
    let p = planes[i];
    let normal = normalize(p.normal);
    room.planes[i] = vec4f(normal, dot(normal, p.point));
    room.surfaces[16u + i] = Surface(p.colour, p.material, p.colour2, p.checker, p.roughness, p.index, p.power);
  }
  for (var i = 0u; i < view.boxes; i += 1u) {
    let b = boxes[i];
    let angle = radians(b.turn);
    room.boxes[i] = Box(b.centre, cos(angle), 0.5 * b.size, sin(angle));
    room.surfaces[24u + i] = Surface(b.colour, b.material, b.colour2, b.checker, b.roughness, b.index, b.power);
    if (b.material == LIGHT) { add_lamp(24u + i); }
  }
}
