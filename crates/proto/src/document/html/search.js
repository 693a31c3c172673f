'use strict';
(() => {
  const box = document.getElementById('search');
  const field = document.getElementById('query');
  const told = document.getElementById('found');
  const sections = [...document.querySelectorAll('[data-list]')].map((section) => ({
    section,
    rows: [...section.querySelectorAll('tbody tr')].map((row) => ({ row, text: row.textContent.toLowerCase() })),
  }));
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { section, rows } of sections) {
      let some = false;
      for (const { row, text } of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        some = some || !row.hidden;
        found += row.hidden ? 0 : 1;
      }
      section.hidden = words.length > 0 && !some;
    }
    told.textContent = words.length === 0 ? '' : found === 0 ? 'nothing found' : found === 1 ? '1 line found' : found + ' lines found';
  };
  field.addEventListener('input', show);
  field.value = new URLSearchParams(location.search).get('q') || '';
  box.hidden = false;
  show();
})();
