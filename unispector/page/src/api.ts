// Requests to the server; every failure is one line.

export class RequestError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

let token = sessionStorage.getItem('unispector-token') ?? '';

function headers(json: boolean): Record<string, string> {
  return {
    ...(json ? { 'Content-Type': 'application/json' } : {}),
    ...(token ? { Authorization: `Bearer ${token}` } : {}),
  };
}

export async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const raw = body instanceof Blob;
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers: headers(body !== undefined && !raw),
      body: body === undefined ? null : raw ? body : JSON.stringify(body),
    });
  } catch {
    throw new RequestError('no connection to UniSpector; is it still running?', 0);
  }
  if (!answer.ok) {
    throw new RequestError(await lineOf(answer), answer.status);
  }
  return (answer.status === 204 ? undefined : await answer.json()) as T;
}

async function lineOf(answer: Response): Promise<string> {
  try {
    return ((await answer.json()) as { error: string }).error;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

export const get = <T>(path: string): Promise<T> => request<T>('GET', path);
export const post = <T>(path: string, body?: unknown): Promise<T> => request<T>('POST', path, body ?? {});

// With the token in a header once, the server sets a cookie that the images carry.
export async function logIn(given: string): Promise<void> {
  token = given;
  await request('POST', '/bench/login');
  sessionStorage.setItem('unispector-token', given);
}

const query = (values: Record<string, string | number>): string =>
  Object.entries(values)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');

export const address = (path: string, values: Record<string, string | number>): string => `${path}?${query(values)}`;

export const thumbnail = (image: string, stamp: string): string => address('/bench/thumbnail', { image, v: stamp });
