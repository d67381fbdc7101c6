// An image of any size, zoomed and panned by OpenSeadragon, with what is drawn over it.

import OpenSeadragon from 'openseadragon';
import { useEffect, useRef, useState, type ReactElement, type ReactNode } from 'react';
import { createPortal } from 'react-dom';
import { address, get, thumbnail } from './api';
import { useBench } from './store';

// Where the image lies in the viewer: pixel (0, 0) at x, y, one pixel as large as `scale`.
export interface Frame {
  x: number;
  y: number;
  scale: number;
  width: number; // of the viewer
  height: number;
  image: [number, number]; // width and height in pixels
}

interface ViewerProps {
  image: string;
  drawing?: boolean; // dragging draws instead of panning
  onReady?: (viewer: OpenSeadragon.Viewer | null) => void;
  children: (frame: Frame, viewer: OpenSeadragon.Viewer) => ReactNode;
}

function tileSource(image: string, stamp: string, width: number, height: number, [tile, overlap]: [number, number]): object {
  const maxLevel = Math.ceil(Math.log2(Math.max(width, height)));
  return {
    width,
    height,
    tileSize: tile,
    tileOverlap: overlap,
    minLevel: Math.min(8, maxLevel),
    maxLevel,
    getTileUrl: (level: number, column: number, row: number) => address('/bench/tile', { image, v: stamp, level, column, row }),
  };
}

export function Viewer({ image, drawing = false, onReady, children }: ViewerProps): ReactElement {
  const element = useRef<HTMLDivElement>(null);
  const [viewer, setViewer] = useState<OpenSeadragon.Viewer | null>(null);
  const [layer, setLayer] = useState<HTMLElement | null>(null);
  const [frame, setFrame] = useState<Frame | null>(null);
  const [trouble, setTrouble] = useState('');
  const stamp = useBench((state) => state.stamps.get(image) ?? '');
  const tile = useBench((state) => state.start?.tile ?? 512);
  const overlap = useBench((state) => state.start?.overlap ?? 0);

  useEffect(() => {
    if (!element.current) return undefined;
    const made = OpenSeadragon({
      element: element.current,
      drawer: 'canvas',
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: 'BOTTOM_RIGHT',
      navigatorSizeRatio: 0.14,
      navigatorAutoFade: true,
      animationTime: 0.35,
      springStiffness: 9,
      zoomPerScroll: 1.3,
      maxZoomPixelRatio: 24,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true, pinchToZoom: true, flickEnabled: false },
      gestureSettingsPen: { clickToZoom: false },
      imageLoaderLimit: 4,
      maxImageCacheCount: 300,
    } as OpenSeadragon.Options);
    made.addHandler('canvas-key', (event) => {
      event.preventDefaultAction = true; // the page has keys of its own
    });
    const over = document.createElement('div');
    over.className = 'konva';
    made.canvas.appendChild(over);
    setLayer(over);
    setViewer(made);
    onReady?.(made);
    return () => {
      onReady?.(null);
      setViewer(null);
      setLayer(null);
      made.destroy();
    };
  }, []);

  useEffect(() => {
    if (!viewer) return undefined;
    const pan = !drawing;
    const gestures = viewer as unknown as Record<string, { dragToPan: boolean } | undefined>;
    for (const kind of ['Mouse', 'Touch', 'Pen']) {
      const settings = gestures[`gestureSettings${kind}`];
      if (settings) settings.dragToPan = pan;
    }
    return undefined;
  }, [viewer, drawing]);

  useEffect(() => {
    if (!viewer) return undefined;
    let wanted = true;
    setTrouble('');
    setFrame(null);
    get<{ width: number; height: number }>(address('/bench/size', { image })).then(
      ({ width, height }) => wanted && viewer.open({ tileSource: tileSource(image, stamp, width, height, [tile, overlap]) }),
      (error: unknown) => {
        if (!wanted) return;
        viewer.close();
        setTrouble(error instanceof Error ? error.message : String(error));
      },
    );
    return () => {
      wanted = false;
    };
  }, [viewer, image, stamp, tile, overlap]);

  useEffect(() => {
    if (!viewer) return undefined;
    let smooth = true;
    const follow = (): void => {
      const item = viewer.world.getItemAt(0);
      if (!item) return;
      const { x: width, y: height } = item.getContentSize();
      const origin = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
      const end = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(width, height));
      const size = viewer.viewport.getContainerSize();
      const scale = (end.x - origin.x) / width;
      if (smooth !== scale < 3) {
        smooth = scale < 3; // single pixels are to be seen as such
        viewer.drawer.setImageSmoothingEnabled(smooth);
        viewer.forceRedraw();
      }
      element.current?.toggleAttribute('data-zoomed', viewer.viewport.getZoom() > 1.05 * viewer.viewport.getHomeZoom());
      setFrame({ x: origin.x, y: origin.y, scale, width: size.x, height: size.y, image: [width, height] });
    };
    const failed = (event: { message?: string }): void => setTrouble(event.message ?? 'the image cannot be shown');
    viewer.addHandler('open', follow);
    viewer.addHandler('update-viewport', follow);
    viewer.addHandler('resize', follow);
    viewer.addHandler('open-failed', failed);
    return () => {
      viewer.removeHandler('open', follow);
      viewer.removeHandler('update-viewport', follow);
      viewer.removeHandler('resize', follow);
      viewer.removeHandler('open-failed', failed);
    };
  }, [viewer]);

  return (
    <div className="viewer" data-drawing={drawing}>
      {frame && !trouble && (
        // Shown until the tiles are there; those of a huge image take seconds.
        <img
          className="preview"
          src={thumbnail(image, stamp)}
          alt=""
          style={{ left: frame.x, top: frame.y, width: frame.scale * frame.image[0], height: frame.scale * frame.image[1] }}
        />
      )}
      <div className="osd" ref={element} />
      {trouble && <div className="viewertrouble">{trouble}</div>}
      {viewer && layer && frame && createPortal(children(frame, viewer), layer)}
    </div>
  );
}
