// SPDX-License-Identifier: Apache-2.0
// Lists the operations of /openapi.json and sends requests to the server that it came from.
'use strict';

// element makes an element; every text is set as text, so that nothing of it is read as HTML.
function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

const methods = ['get', 'post', 'put', 'patch', 'delete'];

let spec;

function resolve(schema) {
  const named = reference(schema);
  if (named) return spec.components.schemas[named.split('/').pop()] || {};
  return schema || {};
}

// reference returns which schema another names, also where null may be in its place.
function reference(schema) {
  if (!schema) return undefined;
  return schema.$ref || (schema.anyOf || []).map((s) => s.$ref).find(Boolean);
}

// typeOf returns a schema's type. That it may be null goes without saying.
function typeOf(schema) {
  return [schema.type].flat().find((type) => type !== 'null');
}

// bodyOf returns the schema of the body of a request or a response.
function bodyOf(message) {
  const content = Object.values((message || {}).content || {});
  return content.length > 0 ? content[0].schema : undefined;
}

function typeName(schema) {
  if (typeOf(schema) === 'array') return 'list of ' + typeName(schema.items || {});
  const named = reference(schema);
  if (named) {
    const name = named.split('/').pop();
    return resolve(schema).enum ? 'one of ' + name : name;
  }
  if (schema.additionalProperties) return 'map of ' + typeName(schema.additionalProperties);
  return typeOf(schema) || 'any';
}

// schemaTable describes an object's members, and those of the objects in it up to a depth.
function schemaTable(schema, depth = 3) {
  const table = element('table');
  const walk = (s, prefix, left) => {
    for (const [name, property] of Object.entries(resolve(s).properties || {})) {
      let description = property.description || resolve(property).description || '';
      const values = resolve(typeOf(property) === 'array' ? property.items : property).enum;
      if (values) description += ' (' + values.join(', ') + ')';
      table.append(element('tr', {}, element('td', {}, prefix + name), element('td', {}, typeName(property)), element('td', {}, description)));
      if (left <= 1) continue;
      if (typeOf(property) === 'array') walk(property.items || {}, prefix + name + '[].', left - 1);
      else walk(property, prefix + name + '.', left - 1);
    }
  };
  walk(schema, '', depth);
  return table;
}

function schemaDetails(title, schema) {
  return element('details', { class: 'schema' }, element('summary', {}, title), schemaTable(schema));
}

// shellQuote quotes a text for a POSIX shell.
function shellQuote(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

function operationView(method, path, operation) {
  const id = operation.operationId;
  const parameters = operation.parameters || [];
  const inputs = new Map();
  const inside = element('div', { class: 'inside' });
  inside.append(element('p', {}, (operation.summary || '') + (operation.description ? '\n\n' + operation.description : '')));

  for (const p of parameters.filter((p) => p.in === 'path' || p.in === 'query')) {
    const input = element('input', { id: id + '.' + p.name, name: p.name, spellcheck: 'false', autocomplete: 'off' });
    inputs.set(p, input);
    inside.append(element('label', { for: input.id }, p.name + ' ', element('small', {}, (p.in === 'path' ? '' : 'optional. ') + (p.description || ''))), input);
  }

  const bodySchema = bodyOf(operation.requestBody);
  let body;
  if (bodySchema) {
    const [example = {}] = bodySchema.examples || resolve(bodySchema).examples || [];
    body = element('textarea', { id: id + '.body', spellcheck: 'false' });
    body.value = JSON.stringify(example, null, 2);
    inside.append(element('label', { for: body.id }, 'body ', element('small', {}, 'JSON')), body, schemaDetails('Members of the body', bodySchema));
  }
  const success = bodyOf((operation.responses || {})['200']);
  if (success) inside.append(schemaDetails('Members of the answer', success));

  const send = element('button', { type: 'button' }, 'Send');
  const answer = element('div', { class: 'answer', 'aria-live': 'polite' });
  send.addEventListener('click', async () => {
    let url = path;
    const query = new URLSearchParams();
    for (const [p, input] of inputs) {
      if (p.in === 'path') url = url.replace('{' + p.name + '}', encodeURIComponent(input.value));
      else if (input.value !== '') query.set(p.name, input.value);
    }
    if (query.size > 0) url += '?' + query;
    const options = { method: method.toUpperCase(), headers: {} };
    let curl = 'curl';
    // The key stays in the field: it is not kept, and the command that is shown reads it from the environment.
    const key = document.getElementById('key').value.trim();
    if (key) {
      options.headers.Authorization = 'Bearer ' + key;
      curl += ' -H "Authorization: Bearer $CLIPPER_API_KEY"';
    }
    if (options.method !== 'GET') curl += ' -X ' + options.method;
    curl += ' ' + shellQuote(location.origin + url);
    if (body) {
      options.body = body.value;
      options.headers['Content-Type'] = 'application/json';
      let short = body.value;
      try { short = JSON.stringify(JSON.parse(short)); } catch { /* The server says what is wrong with it. */ }
      curl += ' -d ' + shellQuote(short);
    }
    send.disabled = true;
    const started = performance.now();
    try {
      const response = await fetch(url, options);
      let text = await response.text();
      const took = (performance.now() - started).toFixed(1);
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* Shown as it is. */ }
      answer.replaceChildren(
        element('pre', {}, curl),
        element('div', { class: 'status ' + (response.ok ? 'ok' : 'bad') }, `${response.status} ${response.statusText} (${took} ms)`),
        element('pre', { class: 'text' }, text));
    } catch (error) {
      answer.replaceChildren(element('pre', {}, curl), element('div', { class: 'status bad' }, 'No answer: ' + error.message));
    } finally {
      send.disabled = false;
    }
  });
  inside.append(send, answer);

  return element('details', { class: 'operation', id },
    element('summary', {}, element('span', { class: 'method ' + method }, method.toUpperCase()), element('code', {}, path),
      element('span', { class: 'short' }, (operation.summary || '').split('\n')[0])),
    inside);
}

async function main() {
  const about = document.getElementById('about');
  try {
    spec = await (await fetch('/openapi.json')).json();
  } catch (error) {
    about.textContent = 'The description of the API cannot be loaded: ' + error.message;
    return;
  }
  about.textContent = spec.info.description;
  const list = document.getElementById('operations');
  for (const tag of spec.tags) {
    const section = element('section', {}, element('h2', {}, tag.name), element('p', {}, tag.description || ''));
    for (const [path, item] of Object.entries(spec.paths)) {
      for (const method of methods) {
        if (item[method] && item[method].tags.includes(tag.name)) section.append(operationView(method, path, item[method]));
      }
    }
    list.append(section);
  }
  // A link to an operation opens it.
  const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (wanted) { wanted.open = true; wanted.scrollIntoView(); }
}

main();
