// All images, the most suspicious first; only what is seen is drawn.

import { Badge, Button, Checkbox, Group, SegmentedControl, Select, Text } from '@mantine/core';
import { IconCheck, IconPencilPlus, IconPhotoOff } from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { memo, useEffect, useMemo, useRef, useState, type ReactElement } from 'react';
import { post, thumbnail } from './api';
import { byImage, counting, percent, thresholdsOf, type Shown, type Thresholds } from './derive';
import { path, useOutlines } from './outlines';
import { listNow, openImage, set, useBench, type Show, type Sort } from './store';
import type { Mark, Result } from './types';

const CARD = 216; // least width of a card in pixels
const PICTURE = 150; // height of its image

export function useList(): string[] {
  const state = useBench();
  const { images, results, session, moved, only, show, sort, order } = state;
  const open = state.view === 'image';
  const judged = open ? null : results; // while an image is open nothing is sorted anew
  return useMemo(() => {
    const there = new Set(images);
    return open ? order.filter((name) => there.has(name)) : listNow(state);
  }, [images, judged, open ? null : session, open ? null : moved, only, show, sort, order, open]); // eslint-disable-line
}

export function Grid(): ReactElement {
  const { session, results, moved, only, view, images, stamps, run, current, chosen, masks } = useBench();
  const names = useList();
  const scroller = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(900);
  useEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const watcher = new ResizeObserver(() => element.clientWidth > 0 && setWidth(element.clientWidth));
    watcher.observe(element);
    return () => watcher.disconnect();
  }, []);
  const columns = Math.max(1, Math.floor((width - 16) / CARD));
  const rows = useVirtualizer({
    count: Math.ceil(names.length / columns),
    getScrollElement: () => scroller.current,
    estimateSize: () => PICTURE + 58,
    overscan: 2,
  });
  const visible = rows.getVirtualItems();
  const first = (visible[0]?.index ?? 0) * columns;
  const last = ((visible.at(-1)?.index ?? 0) + 1) * columns;
  const seen = names.slice(first, last).join('\0');
  useEffect(() => {
    if (view !== 'grid' || !seen) return undefined;
    const timer = setTimeout(() => void post('/bench/seen', { images: seen.split('\0').slice(0, 300) }).catch(() => undefined), 250);
    return () => clearTimeout(timer);
  }, [seen, view]);
  const place = current === null ? -1 : names.indexOf(current);
  useEffect(() => {
    if (view === 'grid' && place >= 0) rows.scrollToIndex(Math.floor(place / columns));
    // Only where the chosen image changes; a new order of the list does not move the page.
  }, [current, view]); // eslint-disable-line
  const marks = useMemo(() => byImage(session?.marks ?? []), [session]);
  const least = useMemo(() => thresholdsOf(session, moved), [session, moved]);
  const colours = useMemo(() => new Map(session?.classes.map((own) => [own.name, own.colour])), [session]);
  const reviewed = useMemo(() => new Set(session?.reviewed), [session]);
  const good = useMemo(() => new Set(session?.good), [session]);
  return (
    <>
      <Bar count={names.length} />
      {session !== null && session.marks.length === 0 && !session.classes.some((own) => own.prompted) && images.length > 0 && (
        <div className="teach" data-testid="teach">
          <IconPencilPlus size={18} />
          <span>
            Open an image that shows a defect and draw a box around it. It is then looked for on all {images.length} images.
          </span>
        </div>
      )}
      <div className="scroller" ref={scroller} data-testid="grid" data-columns={columns}>
        {names.length === 0 && <Empty all={images.length} />}
        <div style={{ height: rows.getTotalSize(), position: 'relative' }}>
          {visible.map((row) => (
            <div
              key={row.key}
              className="row"
              style={{ transform: `translateY(${row.start}px)`, gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))` }}
            >
              {names.slice(row.index * columns, (row.index + 1) * columns).map((name) => (
                <Card
                  key={name}
                  name={name}
                  stamp={stamps.get(name) ?? ''}
                  result={results.get(name)}
                  outdated={run.key !== '' && results.has(name) && results.get(name)?.key !== run.key}
                  waiting={run.key !== '' && !results.has(name)}
                  marks={marks.get(name)}
                  least={least}
                  only={only}
                  colours={colours}
                  masks={masks}
                  reviewed={reviewed.has(name)}
                  good={good.has(name)}
                  current={current === name}
                  picked={chosen.includes(name)}
                />
              ))}
            </div>
          ))}
        </div>
      </div>
    </>
  );
}

function Bar({ count }: { count: number }): ReactElement {
  const { show, sort, only, images, chosen, session } = useBench();
  return (
    <div className="filters">
      <SegmentedControl
        size="xs"
        value={show}
        onChange={(value) => set({ show: value as Show })}
        data={[
          { value: 'all', label: 'All' },
          { value: 'with', label: 'With findings' },
          { value: 'without', label: 'Without' },
          { value: 'open', label: 'Not reviewed' },
        ]}
      />
      <Select
        size="xs"
        className="sort"
        value={sort}
        allowDeselect={false}
        onChange={(value) => set({ sort: (value ?? 'suspicious') as Sort })}
        data={[
          { value: 'suspicious', label: 'Suspicious first' },
          { value: 'open', label: 'Not reviewed first' },
          { value: 'name', label: 'By name' },
        ]}
        aria-label="Order"
      />
      <Select
        size="xs"
        className="only"
        placeholder="All defects"
        clearable
        value={only}
        onChange={(value) => set({ only: value })}
        data={(session?.classes ?? []).map((own) => own.name)}
        aria-label="Defect"
      />
      {/* Not at the right end, where the tooltips of the bar above would cover it. */}
      <Text size="xs" c="dimmed" data-testid="listed">
        {count === images.length ? `${count} images` : `${count} of ${images.length} images`}
      </Text>
      {chosen.length > 0 && (
        <Button size="compact-xs" variant="subtle" color="gray" onClick={() => set({ chosen: [] })}>
          {chosen.length} picked, clear
        </Button>
      )}
    </div>
  );
}

function Empty({ all }: { all: number }): ReactElement {
  return (
    <div className="empty">
      <IconPhotoOff size={36} stroke={1.2} />
      {all === 0 ? (
        <>
          <Text fw={600}>No image in this folder</Text>
          <Text size="sm" c="dimmed">
            Drop images here, or copy some into the folder (PNG, JPEG, BMP, TIFF, WebP): they appear by themselves.
          </Text>
        </>
      ) : (
        <>
          <Text fw={600}>No image to show</Text>
          <Text size="sm" c="dimmed">
            None of the {all} images fits the filter. Choose “All”, or lower a slider.
          </Text>
        </>
      )}
    </div>
  );
}

interface CardProps {
  name: string;
  stamp: string;
  result: Result | undefined;
  outdated: boolean;
  waiting: boolean;
  marks: Mark[] | undefined;
  least: Thresholds;
  only: string | null;
  colours: Map<string, string>;
  masks: boolean;
  reviewed: boolean;
  good: boolean;
  current: boolean;
  picked: boolean;
}

const Card = memo(function Card(props: CardProps): ReactElement {
  const { name, stamp, result, outdated, waiting, marks, least, only, colours, reviewed, good, current, picked } = props;
  const [trouble, setTrouble] = useState('');
  const found = counting(result, least, only);
  const hw = result && result.hw[0] > 0 ? result.hw : marks?.[0]?.hw;
  const marked = (marks ?? []).filter((mark) => !mark.negative && (only === null || mark.label === only)).length;
  const room = marked ? 2 : 3; // scores that fit on the line
  const line = trouble || result?.trouble || '';
  const explain = async (): Promise<void> => {
    const answer = await fetch(thumbnail(name, stamp)).catch(() => null);
    setTrouble(answer === null ? 'cannot be loaded' : ((await answer.json().catch(() => ({}))) as { error?: string }).error ?? 'cannot be shown');
  };
  return (
    <div
      className="card"
      data-image={name}
      data-current={current}
      data-outdated={outdated}
      role="button"
      tabIndex={-1}
      onClick={(event) => (event.ctrlKey || event.metaKey ? pick(name) : openImage(name))}
    >
      <div className="picture">
        {line ? (
          <div className="broken">
            <IconPhotoOff size={22} stroke={1.3} />
            <span>{line.slice(line.lastIndexOf(`${name}:`) + 1 ? line.lastIndexOf(`${name}:`) + name.length + 1 : 0)}</span>
          </div>
        ) : (
          <>
            <img src={thumbnail(name, stamp)} alt={name} loading="lazy" decoding="async" draggable={false} onError={() => void explain()} />
            {hw && <Overlay {...props} hw={hw} found={found} />}
          </>
        )}
        <label className="pick" onClick={(event) => event.stopPropagation()}>
          <Checkbox size="xs" checked={picked} onChange={() => pick(name)} aria-label={`Pick ${name}`} />
        </label>
        {reviewed && (
          <span className="seal" title="Reviewed">
            <IconCheck size={12} stroke={3} />
          </span>
        )}
      </div>
      <div className="cardline">
        <Text size="xs" truncate title={name} flex={1} dir="rtl" ta="left">
          <bdi>{name}</bdi>
        </Text>
      </div>
      <Group gap={4} wrap="nowrap" className="chips">
        {found.slice(0, room).map((own) => (
          <span key={own.row} className="chip" title={own.label}>
            <i style={{ background: colours.get(own.label) }} />
            {percent(own.score)}
          </span>
        ))}
        {found.length > room && <span className="chip">+{found.length - room}</span>}
        {marked > 0 && (
          <Badge size="xs" variant="light" className="plain">
            {marked === 1 ? '1 mark' : `${marked} marks`}
          </Badge>
        )}
        {good && (
          <Badge size="xs" variant="light" color="green" className="plain">
            good
          </Badge>
        )}
        {waiting && !line && <span className="chip quiet">waiting</span>}
        {outdated && <span className="chip quiet">outdated</span>}
        {!waiting && !outdated && !found.length && !marked && result && !line && <span className="chip quiet">nothing</span>}
      </Group>
    </div>
  );
});

export function pick(name: string): void {
  const chosen = useBench.getState().chosen;
  set({ chosen: chosen.includes(name) ? chosen.filter((own) => own !== name) : [...chosen, name].slice(-4) });
}

function Overlay({ hw, found, result, marks, colours, masks, only }: CardProps & { hw: [number, number]; found: Shown[] }): ReactElement {
  const outlines = useOutlines(result, masks && found.length > 0);
  const [height, width] = hw;
  return (
    <svg viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="xMidYMid meet" className="overlay">
      {[...found].reverse().map((own) => {
        const box = result?.boxes[own.row];
        if (!box) return null;
        const colour = colours.get(own.label) ?? '#888';
        const shapes = outlines?.get(result?.ids[own.row] ?? '') ?? [];
        return (
          <g key={own.row} data-finding={own.label}>
            {masks && <path d={shapes.map(path).join('')} fill={colour} fillOpacity={0.45} />}
            <rect x={box[0]} y={box[1]} width={box[2]} height={box[3]} fill="none" stroke={colour} className="line" />
          </g>
        );
      })}
      {(marks ?? [])
        .filter((mark) => only === null || mark.label === only)
        .map((mark) => (
          <rect
            key={mark.id}
            x={mark.box[0]}
            y={mark.box[1]}
            width={mark.box[2]}
            height={mark.box[3]}
            fill="none"
            stroke={mark.negative ? '#ff5c5c' : '#ffffff'}
            className="line"
            strokeDasharray={mark.negative ? '2 3' : '5 3'}
          />
        ))}
    </svg>
  );
}
