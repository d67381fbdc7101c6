// Undo and redo, and what they did where it is not seen.

import { Anchor } from '@mantine/core';
import { post } from './api';
import { inTurn, now, openImage, tell } from './store';
import type { Mark, Session } from './types';

interface Step {
  what: string;
  image: string | null; // the one that it was about
}

export async function undo(redo = false): Promise<void> {
  let before: Session | null = null;
  const done = await inTurn((version) => {
    before = now().session;
    return post<Session>('/bench/undo', { version, redo });
  });
  const { session, view, current } = now();
  if (!done || before === null || session === null) return;
  const { what, image } = redo ? stepBetween(before, session) : stepBetween(session, before);
  if (image !== null && view === 'image' && image === current) return; // it is seen
  const word = redo ? 'redone' : 'undone';
  tell(
    image === null ? (
      `${word}: ${what}`
    ) : (
      <>
        {word}: {what} on{' '}
        <Anchor component="button" fz="inherit" onClick={() => openImage(image)}>
          {image.slice(image.lastIndexOf('/') + 1)}
        </Anchor>
      </>
    ),
  );
}

// The change that led from one state to the next.
function stepBetween(from: Session, to: Session): Step {
  return markStep(from, to) ?? setStep(from.reviewed, to.reviewed, 'reviewed') ?? setStep(from.good, to.good, 'good') ?? classStep(from, to);
}

function markStep(from: Session, to: Session): Step | null {
  const added = to.marks.find((own) => !from.marks.some((each) => each.id === own.id));
  if (added) return { what: madeAs(added), image: added.image };
  const gone = from.marks.filter((own) => !to.marks.some((each) => each.id === own.id));
  const [first] = gone;
  if (first) {
    if (!to.classes.some((own) => own.name === first.label)) return null; // the class went with them
    const what = `removal of ${gone.length === 1 ? 'a mark' : `${gone.length} marks`} of ${first.label}`;
    return { what, image: first.image };
  }
  if (from.classes.map((own) => own.name).join('\0') !== to.classes.map((own) => own.name).join('\0')) return null; // renamed
  const moved = to.marks.find((own) => JSON.stringify(own) !== JSON.stringify(from.marks.find((each) => each.id === own.id)));
  return moved ? { what: `change of a mark of ${moved.label}`, image: moved.image } : null;
}

function madeAs({ origin, label, negative, outlines }: Mark): string {
  const what = label === '*' ? 'any defect' : label;
  if (origin !== 'drawn') return `${origin === 'accepted' ? 'accept' : 'reject'} of ${what}`;
  return `${outlines.length ? 'mask' : 'box'} of ${negative ? 'what is not ' : ''}${what}`;
}

function setStep(from: string[], to: string[], word: string): Step | null {
  const added = to.filter((name) => !from.includes(name));
  const changed = added.length ? added : from.filter((name) => !to.includes(name));
  const what = added.length ? `“${word}”` : `“not ${word}”`;
  if (changed.length > 1) return { what: `${what} on ${changed.length} images`, image: null };
  return changed[0] === undefined ? null : { what, image: changed[0] };
}

function classStep(from: Session, to: Session): Step {
  const added = to.classes.find((own) => !from.classes.some((each) => each.name === own.name));
  const gone = from.classes.find((own) => !to.classes.some((each) => each.name === own.name));
  if (gone) return { what: added ? `renaming ${gone.name} to ${added.name}` : `removal of ${gone.name}`, image: null };
  if (added) return { what: `class ${added.name}`, image: null };
  const moved = to.classes.find((own) => own.threshold !== from.classes.find((each) => each.name === own.name)?.threshold);
  return { what: moved ? `threshold of ${moved.name}` : 'the last change', image: null };
}
