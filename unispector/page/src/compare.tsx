// Two to four images side by side, which zoom and pan together.

import { ActionIcon, Text } from '@mantine/core';
import { IconX } from '@tabler/icons-react';
import OpenSeadragon from 'openseadragon';
import { useMemo, useRef, type ReactElement } from 'react';
import { Canvas } from './canvas';
import { thresholdsOf } from './derive';
import { openImage, set, useBench } from './store';
import { Viewer } from './viewer';

export function Compare(): ReactElement {
  const { chosen, session, results, run, moved, only, masks } = useBench();
  const viewers = useRef(new Map<string, OpenSeadragon.Viewer>());
  const leader = useRef<string | null>(null);
  const colours = useMemo(() => new Map(session?.classes.map((own) => [own.name, own.colour])), [session]);
  const least = useMemo(() => thresholdsOf(session, moved), [session, moved]);

  const follow = (name: string): void => {
    const lead = viewers.current.get(name);
    if (leader.current !== name || !lead?.world.getItemCount()) return;
    const zoom = lead.viewport.getZoom() / lead.viewport.getHomeZoom();
    const centre = lead.viewport.getCenter();
    const [x, y] = [centre.x, centre.y / heightOf(lead)];
    for (const [other, viewer] of viewers.current) {
      if (other === name || !viewer.world.getItemCount()) continue;
      viewer.viewport.zoomTo(zoom * viewer.viewport.getHomeZoom(), undefined, true);
      viewer.viewport.panTo(new OpenSeadragon.Point(x, y * heightOf(viewer)), true);
    }
  };
  const ready = (name: string) => (viewer: OpenSeadragon.Viewer | null): void => {
    if (!viewer) {
      viewers.current.delete(name);
      return;
    }
    viewers.current.set(name, viewer);
    viewer.addHandler('zoom', () => follow(name));
    viewer.addHandler('pan', () => follow(name));
  };
  return (
    <div className="compare" data-count={chosen.length}>
      {chosen.map((name) => (
        <div
          key={name}
          className="pane"
          data-pane={name}
          onPointerEnter={() => (leader.current = name)}
          onPointerDownCapture={() => (leader.current = name)}
          onWheelCapture={() => (leader.current = name)}
        >
          <div className="panehead">
            <Text size="xs" truncate flex={1} title={name} style={{ cursor: 'pointer' }} onClick={() => openImage(name)}>
              {name}
            </Text>
            <ActionIcon
              size="xs"
              aria-label={`Leave out ${name}`}
              onClick={() => {
                const rest = chosen.filter((own) => own !== name);
                set(rest.length < 2 ? { chosen: rest, view: 'grid' } : { chosen: rest });
              }}
            >
              <IconX size={14} />
            </ActionIcon>
          </div>
          <Viewer image={name} onReady={ready(name)}>
            {(frame, viewer) => (
              <Canvas
                frame={frame}
                viewer={viewer}
                result={results.get(name)}
                outdated={results.has(name) && results.get(name)?.key !== run.key}
                marks={(session?.marks ?? []).filter((own) => own.image === name && (only === null || own.label === only))}
                least={least}
                only={only}
                colours={colours}
                masks={masks}
                tool="move"
                brush={1}
                colour="#ffb000"
                mark={null}
                finding={null}
              />
            )}
          </Viewer>
        </div>
      ))}
    </div>
  );
}

// Of the image, where its width is 1.
function heightOf(viewer: OpenSeadragon.Viewer): number {
  const size = viewer.world.getItemAt(0).getContentSize();
  return size.y / size.x;
}
