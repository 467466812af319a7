// A canvas that shows one thumbnail, or a part of it.

import { effect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Pictures } from "./pictures.js";
import type { Box } from "./scenes.js";

export function Picture(props: {
  store: Pictures;
  name: string;
  label: string;
  crop?: Box;
  class?: string;
  children?: ComponentChildren;
}) {
  const { store, name, crop } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const cropKey = crop ? `${crop.left},${crop.top},${crop.width},${crop.height}` : "";

  useEffect(() => {
    const target = canvas.current;
    if (!target) return;
    let release: (() => void) | null = null;
    const observer = new IntersectionObserver((seen) => {
      const visible = seen[seen.length - 1]?.isIntersecting ?? false;
      if (visible) release ??= store.watch(name);
      else {
        release?.();
        release = null;
      }
    });
    observer.observe(target);
    const stop = effect(() => draw(target, store.frame(name).value?.bitmap ?? null, crop));
    return () => {
      observer.disconnect();
      release?.();
      stop();
    };
  }, [store, name, cropKey]);

  return <canvas ref={canvas} class={props.class} width={320} height={180} role="img" aria-label={props.label} />;
}

function draw(target: HTMLCanvasElement, bitmap: ImageBitmap | null, crop: Box | undefined): void {
  const context = target.getContext("2d");
  if (!context) return;
  if (!bitmap) {
    context.clearRect(0, 0, target.width, target.height);
    target.dataset.picture = "none";
    return;
  }
  const box = crop ?? { left: 0, top: 0, width: 1, height: 1 };
  const width = Math.max(1, Math.round(bitmap.width * box.width));
  const height = Math.max(1, Math.round(bitmap.height * box.height));
  if (target.width !== width) target.width = width;
  if (target.height !== height) target.height = height;
  context.drawImage(bitmap, bitmap.width * box.left, bitmap.height * box.top, width, height, 0, 0, width, height);
  target.dataset.picture = "shown";
}
