/** Seconds since the epoch as people read them, with how far that is from `now`. */
export function timeText(seconds: number, now: number): string {
  const iso = new Date(seconds * 1_000).toISOString().replace(".000Z", "Z");
  const apart = Math.abs(seconds - now);
  const text =
    apart < 120
      ? `${apart} s`
      : apart < 7_200
        ? `${Math.round(apart / 60)} min`
        : apart < 172_800
          ? `${Math.round(apart / 3_600)} h`
          : `${Math.round(apart / 86_400)} days`;
  return seconds > now ? `${iso} (in ${text})` : `${iso} (${text} ago)`;
}
