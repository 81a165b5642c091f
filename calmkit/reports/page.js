'use strict';
// Sorts and copies the tables of a report, and says where one can be scrolled. The page can be read
// without it: everything that needs it is made or shown here.

const UNITS = {'': 1, k: 1e3, M: 1e6, G: 1e9};

// The number in a cell, without its error; null for a word or a dash.
function numberIn(cell) {
  const text = cell.firstChild.data.trim().replaceAll('\u2212', '-');
  const found = text.match(/^([+-]?[\d.]+(?:e[+-]?\d+)?)([kMG]?)$/);
  return found && Number(found[1]) * UNITS[found[2]];
}

// Sort rows by a column. Rows without a number stay at the end, in their first order.
function sorted(rows, place, direction) {
  if (direction === 'none') return rows;
  const sign = direction === 'ascending' ? 1 : -1;
  const name = row => row.cells[0].textContent;
  if (place === 0) return [...rows].sort((a, b) => sign * name(a).localeCompare(name(b)));
  const known = rows.filter(row => numberIn(row.cells[place]) !== null);
  known.sort((a, b) => sign * (numberIn(a.cells[place]) - numberIn(b.cells[place])));
  return [...known, ...rows.filter(row => !known.includes(row))];
}

for (const table of document.querySelectorAll('.box table')) {
  const body = table.tBodies[0], rows = [...body.rows], headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, place) => {
    // The best first: where an arrow tells which end that is, else the largest.
    const first = place === 0 || heading.textContent.includes('\u2193') ? 'ascending' : 'descending';
    const second = first === 'ascending' ? 'descending' : 'ascending';
    const next = {none: first, [first]: second, [second]: 'none'};
    const button = document.createElement('button');
    button.type = 'button';
    button.title = 'Sort by this column';
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute('aria-sort', 'none');
    button.addEventListener('click', () => {
      const direction = next[heading.getAttribute('aria-sort')];
      for (const other of headings) other.setAttribute('aria-sort', 'none');
      heading.setAttribute('aria-sort', direction);
      body.append(...sorted(rows, place, direction));
    });
  });
}

// A page opened from a file may have no clipboard: select the text, and let the browser copy it.
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    const details = source.closest('details'), wasOpen = details.open;
    details.open = true;
    getSelection().selectAllChildren(source);
    const copied = document.execCommand('copy');
    if (copied) {
      getSelection().removeAllRanges();
      details.open = wasOpen;
    }
    return copied;
  }
}

for (const tools of document.querySelectorAll('.tools')) {
  tools.hidden = false;
  const status = tools.querySelector('[role=status]');
  for (const button of tools.querySelectorAll('button'))
    button.addEventListener('click', async () => {
      const copied = await copy(document.getElementById(button.dataset.copies));
      status.textContent = copied ? 'Copied.' : 'Select the text below and copy it.';
    });
}

const hints = new ResizeObserver(entries => {
  for (const {target} of entries) {
    const hint = target.nextElementSibling;
    hint.hidden = target.scrollWidth <= target.clientWidth;
  }
});
for (const box of document.querySelectorAll('.box')) hints.observe(box);
