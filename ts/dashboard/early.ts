// Runs before the page is painted, so that it does not flash in the other theme.
try {
  const theme = localStorage.getItem('ossa-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset['theme'] = theme;
} catch {
  // Nothing may be kept here: the system's theme it is.
}
